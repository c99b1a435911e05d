#!/usr/bin/env bash
# The recipes of docs/operations.md for jobs and sessions, as they are printed there, as a user made for it: in a mount
# namespace of its own, so that nothing of this machine changes. As root, with Debian's python3 of the version of .venv:
# tests/install/job-namespaces.sh STATE, the folder of `./run demo --state STATE`.
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
state=$(cd "$1" && pwd)
[ "${INSIDE:-}" ] || INSIDE=yes exec unshare --mount --propagation private "$0" "$state"

die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
say() { printf '== %s\n' "$*"; }
# recipe LINE: the block of the page that has this line
recipe() {
    awk -v line="$1" '/^```/ { if (inside && found) print text; inside = !inside; text = ""; found = 0; next }
        inside { text = text $0 "\n"; if (index($0, line)) found = 1 }' "$clone/docs/operations.md"
}
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/{etc,usr-local,work,work2,home,grid}
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc
mount -t overlay overlay -o lowerdir=/usr/local,upperdir=/mnt/usr-local,workdir=/mnt/work2 /usr/local
mknod -m 666 /mnt/fuse c 10 229 # whatever this machine allows
mount --bind /mnt/fuse /dev/fuse
useradd --uid 30077 --home-dir /mnt/home/anna --create-home --shell /bin/bash anna
home=/mnt/home/anna
mkdir -p "$home"/{.config/mdmfs,grid}
cp "$state/pki/ca.pem" "$state/pki/reader.proxy" "$home"
sed "s#^trust = .*#trust = \"$home/ca.pem\"#; s#^proxy = .*#proxy = \"$home/reader.proxy\"#
    s#^directory = .*#directory = \"$home/cache\"#" "$state/worker/reader.toml" >"$home/.config/mdmfs/mount.toml"
chown -R anna: "$home"
chmod 600 "$home/reader.proxy"
site=$(echo "$clone"/.venv/lib/python3.*/site-packages)
printf '#!/bin/sh\nPYTHONPATH=%s:%s exec /usr/bin/python3 -m mdmfs.cli "$@"\n' "$clone" "$site" >/usr/local/bin/mdmfs
recipe "# /usr/local/bin/with-mdmfs" >/usr/local/bin/with-mdmfs
recipe "# /usr/local/lib/mdmfs-session" >/usr/local/lib/mdmfs-session
chmod 755 /usr/local/bin/mdmfs /usr/local/bin/with-mdmfs /usr/local/lib/mdmfs-session
is_gone() {
    for _ in $(seq 100); do
        if ! pgrep -f "$home/.config/mdmfs/mount.toml" >/dev/null; then return; fi
        sleep 0.1
    done
    die "a daemon is left"
}
# shellcheck disable=SC2016 the job's own words
job='[ "$(id -un)" = anna ] || exit 3
    grep -q "^CapEff:.0*$" /proc/self/status || exit 4
    file=$(find "$0" -name "*.dcm" | head -1)
    [ "$file" ] && [ "$(sha256sum "$file" | cut -c -64)" = "$(getfattr --absolute-names --only-values -n user.mdmfs.sha256 "$file")" ] &&
    exit 7'

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
