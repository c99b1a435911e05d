#!/usr/bin/env bash
# systemd's automount, by a line of fstab and by the units of systemd/, and the unit of a mount that is killed, reloaded and
# stopped, under a systemd of its own: in a container of Debian's systemd-nspawn, which is unpacked and not installed, over this
# machine's files, of which nothing changes. As root:
# tests/install/systemd.sh STATE, the folder of `./run demo --state STATE`.
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
state=$(cd "$1" && pwd)
[ "${INSIDE:-}" ] || INSIDE=yes exec unshare --mount --propagation private "$0" "$state"

die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
say() { printf '== %s\n' "$*"; }
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/{debs,upper,work,root,tried}
(cd /mnt/debs && apt-get download systemd-container) >/mnt/debs/log 2>&1 || die "Debian's package does not come: $(cat /mnt/debs/log)"
dpkg --extract /mnt/debs/*.deb /mnt/unpacked
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
system=/mnt/root/etc/systemd/system
mkdir -p /mnt/root/etc/mdmfs /mnt/root/grid/medical "$system"
sed "s#/opt/mdmfs/bin/mdmfs#$clone/.venv/bin/mdmfs#" "$clone/systemd/mount.fuse.mdmfs" >/mnt/root/usr/sbin/mount.fuse.mdmfs
chmod 755 /mnt/root/usr/sbin/mount.fuse.mdmfs
sed "/^\[credential\]/,/^$/d; s#^\[mount\]#&\nmulti_user = true#; s#^trust = \"#&$state/worker/#; s#\"reader-cache\"#\"/var/cache/tried\"#" \
    "$state/worker/reader.toml" >/mnt/root/etc/mdmfs/mount.toml
grep "^/etc/mdmfs/mount.toml .*x-systemd.automount" "$clone/docs/operations.md" >/mnt/root/etc/fstab

LD_LIBRARY_PATH=/mnt/unpacked/usr/lib/x86_64-linux-gnu/systemd /mnt/unpacked/usr/bin/systemd-nspawn --quiet --directory=/mnt/root \
    --boot --register=no --keep-unit --link-journal=no --console=pipe --bind=/dev/fuse --bind=/dev/autofs --bind=/mnt/tried \
    --bind-ro="$clone" --bind-ro="$state" --machine=tried systemd.unit=basic.target </dev/null >/mnt/console 2>&1 &
nspawn=$!
end() {
    kill "$nspawn" 2>/dev/null || true # systemd halts
    wait "$nspawn" 2>/dev/null || true
}
trap end EXIT
inside() { nsenter --target "$(pgrep --parent "$nspawn" --newest)" --mount --pid --uts --ipc --cgroup -- "$@"; }
for _ in $(seq 100); do
    if inside systemctl is-active --quiet basic.target 2>/dev/null; then break; fi
    sleep 0.2
done
inside systemctl is-active --quiet basic.target || die "systemd does not start: $(cat /mnt/console)"

install -o 1 -m 0600 "$state/pki/reader.proxy" /mnt/tried/proxy.1
install -o 2 -m 0600 "$state/pki/stranger.proxy" /mnt/tried/proxy.2
as() { local uid=$1; shift; inside setpriv --reuid "$uid" --regid "$uid" --clear-groups env "X509_USER_PROXY=/mnt/tried/proxy.$uid" "$@"; }
is_mounted() { inside grep -q " /grid/medical .* fuse.mdmfs " /proc/self/mountinfo; }
reads() {
    local file
    file=$(as 1 find /grid/medical -name '*.dcm' -print -quit)
    [ "$file" ] || die "$1: the reader finds no file: $(inside journalctl --quiet --unit grid-medical.mount)"
    [ "$(as 1 sha256sum "$file" | cut -c -64)" = "$(as 1 getfattr --absolute-names --only-values -n user.mdmfs.sha256 "$file")" ] ||
        die "$1: other bytes than were registered"
    if as 2 cat "$file" >/dev/null 2>&1; then die "$1: a stranger reads"; fi
    if as 3 ls /grid/medical >/dev/null 2>&1; then die "$1: one without a proxy lists"; fi
    say "$1: reads by one's own proxy, and by no other"
}
gone() {
    for _ in $(seq 300); do
        if ! is_mounted && ! pgrep -f "mdmfs.* mount /etc/mdmfs/mount.toml /grid/medical" >/dev/null; then return; fi
        sleep 0.1
    done
    die "$1: still mounted"
}
tried() {
    inside systemctl start grid-medical.automount
    if is_mounted; then die "$1: mounted before anybody looked"; fi
    reads "$1"
    inside kill -9 "$(as 1 getfattr --absolute-names --only-values -n user.mdmfs.pid /grid/medical)"
    for _ in $(seq 100); do
        if ! is_mounted; then break; fi
        sleep 0.1
    done
    reads "$1, after its daemon was killed"
    inside systemctl stop grid-medical.automount grid-medical.mount
    gone "$1"
}
tried "a line of fstab"

rm /mnt/root/etc/fstab
cp "$clone"/systemd/grid-medical.{mount,automount} "$system"
mkdir "$system/grid-medical.automount.d"
printf '[Automount]\nTimeoutIdleSec=4\n' >"$system/grid-medical.automount.d/soon.conf"
inside systemctl daemon-reload
tried "grid-medical.automount"
inside systemctl start grid-medical.automount
reads "grid-medical.automount, started again"
gone "grid-medical.automount, after nobody had looked for 4 s"
reads "grid-medical.automount, after that"

sed "s#/opt/mdmfs/bin/mdmfs#$clone/.venv/bin/mdmfs#" "$clone/systemd/mdmfs-mount@.service" >"$system/mdmfs-mount@.service"
sed "s#\"\.\./pki/#\"$state/pki/#; s#\"reader-cache\"#\"/var/cache/unit\"#" "$state/worker/reader.toml" >/mnt/root/etc/mdmfs/tried.toml
unit=mdmfs-mount@tried point=/run/mdmfs/tried # of the manager of all, where %t is /run and %E is /etc
own() { inside getfattr --absolute-names --only-values -n "$1" "$2" 2>/dev/null; }
serves() {
    local file pid
    for _ in $(seq 200); do
        pid=$(own user.mdmfs.pid "$point") && [ "$pid" != "${killed:-}" ] && break
        sleep 0.1
    done
    [ "$pid" != "${killed:-}" ] || die "$1: nobody serves it: $(inside journalctl --quiet --unit "$unit")"
    file=$(inside find "$point" -name '*.dcm' -print -quit)
    [ "$file" ] || die "$1: there is no file"
    [ "$(inside sha256sum "$file" | cut -c -64)" = "$(own user.mdmfs.sha256 "$file")" ] || die "$1: other bytes than were registered"
    say "$1: reads"
}
inside systemctl daemon-reload
inside systemctl start "$unit"
serves "$unit"
killed=$(own user.mdmfs.pid "$point")
inside kill -9 "$killed"
serves "$unit, after its daemon was killed"
inside systemctl reload "$unit"
serves "$unit, reloaded"
inside systemctl stop "$unit"
if inside grep -q " $point " /proc/self/mountinfo; then die "$unit: still mounted"; fi
[ "$(inside systemctl show --property ActiveState --value "$unit")" = inactive ] || die "$unit did not end in order: $(inside systemctl status "$unit")"
say "all of it works"
