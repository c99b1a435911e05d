#!/usr/bin/env bash
# A clean Debian in a folder: install, initiate, verify units, read a file, uninstall; nothing may be left but data.
# Run as root from anywhere: tests/install/clean-root.sh FOLDER (empty, a few GiB). Needs debootstrap.
set -euo pipefail
clone=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
root=$(mkdir -p "$1" && cd "$1" && pwd)

say() { printf '== %s\n' "$*"; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@"; }
files() { inside find / -xdev -not -path '/proc/*' -not -path '/sys/*' -not -path '/dev/*' -not -path '/tmp/*' \
    -not -path '/var/cache/*' -not -path '/var/lib/apt/*' -not -path '/var/log/*' -not -path '/root/*' -not -path '/run/*' -not -type d | sort; }
end() {
    for point in dev/fuse proc sys; do umount --lazy "$root/$point" 2>/dev/null || true; done
}
trap end EXIT

say "a clean Debian"
[ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase --include=ca-certificates,systemd,systemd-sysv,bash bookworm "$root"
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
cp --dereference /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # whom this machine trusts, in there too
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
touch "$root/dev/fuse" && mount --bind /dev/fuse "$root/dev/fuse"
git clone --quiet "$clone" "$root/root/mdmfs"

say "install, twice: the second finds its way, too"
files >"$root/tmp/before.bare"
inside apt-get update -qq
inside bash -c 'cd /root/mdmfs && ./run install && ./run uninstall'
files >"$root/tmp/before"
inside bash -c 'cd /root/mdmfs && ./run install && ./run install'
inside mdmfs --version
inside test -s /usr/local/share/man/man1/mdmfs-init-hospital.1
inside bash -c 'source /usr/local/share/bash-completion/completions/mdmfs'

say "configurations, and the units that read them"
inside mdmfs init keystore /etc/mdmfs/keystore/site.toml --no-check --name site --listen 127.0.0.1:8443 \
    --directory /var/lib/mdmfs-keystore/site --hospital /DC=org/CN=hospital --certificate c.pem --key k.pem --trust ca
inside mdmfs init hospital /etc/mdmfs/hospital/hospital.toml --no-check --name amc --listen 127.0.0.1:8444 \
    --directory /var/lib/mdmfs-hospital --projects projects --certificate c.pem --key k.pem --trust ca --threshold 1 \
    --pacs main PACS@127.0.0.1:104 --keystore site 127.0.0.1:8443 /DC=org/CN=site
inside systemd-analyze verify --man=no mdmfs-hospitald.service mdmfs-keystored@site.service mdmfs-metadatad.service grid-medical.automount

say "a file, read by hand"
inside bash -c 'mdmfs demo --state /root/site >/root/demo.log 2>&1 & echo $! >/root/demo.pid
    for _ in $(seq 240); do grep -q ^ready: /root/demo.log && break; sleep 0.5; done
    file=$(find /root/site/grid/medical -name "*.dcm" | head -n 1)
    [ "$(head -c 132 "$file" | tail -c 4)" = DICM ] && echo "read $(stat -c %s "$file") bytes of $(basename "$file")"
    kill -INT "$(cat /root/demo.pid)"; while kill -0 "$(cat /root/demo.pid)" 2>/dev/null; do sleep 0.2; done'

say "uninstall: nothing is left but data"
inside bash -c 'cd /root/mdmfs && ./run uninstall'
files >"$root/tmp/after"
left=$(comm -13 "$root/tmp/before" "$root/tmp/after" | grep -v -e '^/etc/mdmfs/' -e '^/var/lib/mdmfs' || true)
[ -z "$left" ] || { say "left behind:"; printf '%s\n' "$left"; exit 1; }
say "clean"
