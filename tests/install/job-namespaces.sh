#!/usr/bin/env bash
# The recipes of docs/operations.md for jobs and sessions, as they are printed there, as a user made for it: in a mount
# namespace of its own, so that nothing of this machine changes. As root, with Debian's python3 of the version of .venv:
# tests/install/job-namespaces.sh STATE, the folder of `./run demo --state STATE`.
. "$(dirname "$(readlink -f "$0")")/namespace.sh"

status=0
setpriv --reuid anna --regid anna --init-groups env --ignore-environment HOME="$home" PATH=/usr/local/bin:/usr/bin:/bin \
    with-mdmfs "$home/.config/mdmfs/mount.toml" "$home/grid" sh -c "$job" "$home/grid" || status=$?
[ "$status" = 7 ] || die "a job: $status"
is_gone
[ -z "$(ls "$home/grid")" ] || die "the job's mount is seen outside"
say "a job has a mount of its own, its exit code is its own, nothing is left"

mkdir -p /etc/security/namespace.d
sed 's#^/grid#/mnt/grid#' "$clone/docs/operations.md" | grep "^/mnt/grid  tmpfs" >/etc/security/namespace.d/mdmfs.conf
grep "^session " "$clone/docs/operations.md" >>/etc/pam.d/su-l
sed -i 's#/grid/medical#/mnt&#g' /usr/local/lib/mdmfs-session
status=0
su - anna -c "sh -c '$job' /mnt/grid/medical && ls /nothing" || status=$?
[ "$status" = 7 ] || die "a session: $status"
is_gone
[ -z "$(ls /mnt/grid)" ] || die "the session's mount is seen outside"
say "a session has a mount of its own, and nothing is left"
