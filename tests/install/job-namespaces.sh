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

scratch=$home/scratch
install -d -o anna -g anna "$scratch"
install -o anna -m 600 "$state/pki/reader.proxy" "$scratch/proxy"
sed "/^\[credential\]/,/^$/d" "$home/.config/mdmfs/mount.toml" >"$scratch/mdmfs.toml"
# as HTCondor's starter does it: a PID namespace with an init of its own, which takes everything along when it is killed
starter() {
    setsid unshare --pid --fork --kill-child --mount-proc sh -c 'cd "$1"; shift; setpriv --reuid anna --regid anna --init-groups env \
        --ignore-environment X509_USER_PROXY="$PWD/proxy" _CONDOR_SCRATCH_DIR="$PWD" HOME="$PWD" \
        PATH=/usr/local/bin:/usr/bin:/bin "$@"; exit $?' sh "$scratch" "$@"
}
status=0
starter with-mdmfs mdmfs.toml grid sh -c "$job" grid || status=$?
[ "$status" = 7 ] || die "a job as HTCondor starts it: $status"
starter with-mdmfs mdmfs.toml grid sh -c 'find grid -name "*.dcm" | head -1 >began; sleep 300' 2>/dev/null &
starting=$!
for _ in $(seq 100); do
    if [ -s "$scratch/began" ]; then break; fi
    sleep 0.1
done
[ -s "$scratch/began" ] || die "a job as HTCondor starts it does not begin"
kill -9 -- "-$(pgrep -P "$starting" unshare || echo "$starting")"
wait "$starting" || true
for _ in $(seq 100); do
    if ! pgrep -f "^sleep 300$" -u anna >/dev/null && ! pgrep -u anna -f "mdmfs.toml" >/dev/null; then break; fi
    sleep 0.1
done
if pgrep -u anna >/dev/null; then die "a removed job leaves: $(pgrep -u anna -a)"; fi
[ -z "$(ls "$scratch/grid")" ] || die "a removed job's mount stays"
say "a job as HTCondor starts it has its mount, and one that is removed leaves nothing"

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
