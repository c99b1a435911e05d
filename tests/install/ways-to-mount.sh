#!/usr/bin/env bash
# mount(8), fstab, --daemon and autofs (Debian's package), for many users, against a running demonstration. All of it in a
# mount namespace of its own: nothing of this machine changes. As root: tests/install/ways-to-mount.sh STATE, the
# folder of `./run demo --state STATE`.
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
state=$(cd "$1" && pwd)
[ "${INSIDE:-}" ] || INSIDE=yes exec unshare --mount --propagation private "$0" "$state"

work=$(mktemp -d)
say() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
end() {
    [ ! "${automounter:-}" ] || kill "$automounter" 2>/dev/null || true
    "$mdmfs" umount "$work/mnt" >/dev/null 2>&1 || true
    umount --lazy "$work/auto/medical" "$work/auto" 2>/dev/null || true
    umount --lazy /usr/sbin /etc "$work/sbin" "$work/etc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap end EXIT
mdmfs=$clone/.venv/bin/mdmfs
mkdir "$work"/{mnt,sbin,etc}
chmod 755 "$work"

say "the helper of mount(8), a line of fstab"
mount -t tmpfs tmpfs "$work/sbin" && mkdir "$work/sbin"/{new,work}
mount -t tmpfs tmpfs "$work/etc" && mkdir "$work/etc"/{new,work}
sed "s#/opt/mdmfs/bin/mdmfs#$mdmfs#; s#/var/log/mdmfs-mount.log#$work/log#" "$clone/systemd/mount.fuse.mdmfs" \
    >"$work/sbin/new/mount.fuse.mdmfs"
chmod +x "$work/sbin/new/mount.fuse.mdmfs"
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$work/sbin/new,workdir=$work/sbin/work" /usr/sbin
echo "$work/mount.toml $work/mnt fuse.mdmfs noauto,nofail,_netdev,x-systemd.automount 0 0" >"$work/etc/new/fstab"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/etc/new,workdir=$work/etc/work" /etc
sed "/^\[credential\]/,/^$/d; s#^\[mount\]#&\nmulti_user = true#; s#^trust = \"#&$state/worker/#; s#\"reader-cache\"#\"$work/cache\"#" \
    "$state/worker/reader.toml" >"$work/mount.toml"

# Two users with a proxy each, and one without.
as() { local uid=$1; shift; setpriv --reuid "$uid" --regid "$uid" --clear-groups env "X509_USER_PROXY=$work/proxy.$uid" "$@"; }
install -o 1 -m 0600 "$state/pki/reader.proxy" "$work/proxy.1"
install -o 2 -m 0600 "$state/pki/stranger.proxy" "$work/proxy.2"
reads() {
    local file
    file=$(as 1 find "$1" -name '*.dcm' -print -quit)
    [ "$file" ] || die "$2: the reader finds no file"
    [ "$(as 1 sha256sum "$file" | cut -c -64)" = "$(as 1 getfattr --absolute-names --only-values -n user.mdmfs.sha256 "$file")" ] ||
        die "$2: other bytes than were registered"
    if as 2 cat "$file" >/dev/null 2>&1; then die "$2: a stranger reads"; fi
    if as 3 ls "$1" >/dev/null 2>&1; then die "$2: one without a proxy lists"; fi
    say "$2: reads by one's own proxy, and by no other"
}
gone() {
    # findmnt would look at the path, and an automounter would take that for use
    for _ in $(seq 200); do
        if ! grep -q " $1 .* fuse.mdmfs " /proc/self/mountinfo; then return; fi
        sleep 0.1
    done
    die "$1 is still mounted"
}

mount -t fuse.mdmfs "$work/mount.toml" "$work/mnt"
reads "$work/mnt" "mount -t fuse.mdmfs"
if mount -t fuse.mdmfs "$work/mount.toml" "$work/mnt" 2>"$work/why"; then die "mounted twice"; fi
grep -q "mounted already" "$work/why" || die "no reason: $(cat "$work/why")"
daemon=$(getfattr --absolute-names --only-values -n user.mdmfs.pid "$work/mnt")
kill -9 "$daemon"
mount -t fuse.mdmfs "$work/mount.toml" "$work/mnt"
reads "$work/mnt" "again, over what a killed daemon left"
umount "$work/mnt"
gone "$work/mnt"

mount "$work/mnt"
reads "$work/mnt" "a line of fstab"
umount "$work/mnt"

if ! command -v automount >/dev/null; then
    say "autofs is not installed"
else
    mkdir "$work/auto"
    echo "$work/auto $work/auto.mdmfs --timeout=4" >"$work/auto.master"
    echo "medical -fstype=fuse.mdmfs :$work/mount.toml" >"$work/auto.mdmfs"
    # In a group of its own: whoever is of the automounter's group is taken for the automounter, and mounts nothing.
    setsid automount --foreground "$work/auto.master" 2>"$work/automount.log" &
    automounter=$!
    for _ in $(seq 100); do
        if findmnt --types autofs "$work/auto" >/dev/null; then break; fi
        sleep 0.1
    done
    reads "$work/auto/medical" "autofs"
    gone "$work/auto/medical"
    reads "$work/auto/medical" "autofs, again after nobody had looked for 4 s"
    kill -9 "$(getfattr --absolute-names --only-values -n user.mdmfs.pid "$work/auto/medical")"
    gone "$work/auto/medical"
    reads "$work/auto/medical" "autofs, after a daemon was killed"
    kill "$automounter"
    wait "$automounter" || true
    gone "$work/auto/medical"
    automounter=
fi

sed "s#\"$work/cache\"#\"/proc/nothing\"#" "$work/mount.toml" >"$work/broken.toml"
if "$mdmfs" mount --daemon --log "$work/log" "$work/broken.toml" "$work/mnt" 2>"$work/why"; then die "a broken one mounts"; fi
grep "could not be mounted" "$work/why" || die "no reason: $(cat "$work/why")"

say "all of it works"
