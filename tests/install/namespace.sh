# Sourced by what tries recipes of docs/operations.md with a running demonstration: a mount namespace of its own, in which
# nothing of this machine changes, and in it a user, anna, with a proxy, a configuration and mdmfs for everybody.
# shellcheck shell=bash
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
state=$(cd "$1" && pwd)
[ "${INSIDE:-}" ] || INSIDE=yes exec unshare --mount --propagation private "$0" "$state" "${@:2}"

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

