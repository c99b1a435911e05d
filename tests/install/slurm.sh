#!/usr/bin/env bash
# The recipes of docs/operations.md for jobs of a batch system, run by Debian's Slurm: a controller and a node on loopback,
# unpacked and not installed, in a mount namespace of their own; they want the freezer of control groups v1. As root,
# with Debian's python3 of the version of .venv: tests/install/slurm.sh STATE, the folder of `./run demo --state STATE`.
. "$(dirname "$(readlink -f "$0")")/namespace.sh"

mkdir -p /mnt/{debs,slurm/state,slurm/spool,munge,local}
(cd /mnt/debs && apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 liblua5.1-0) >/mnt/debs/log 2>&1 ||
    die "Debian's packages do not come: $(cat /mnt/debs/log)"
for package in /mnt/debs/*.deb; do dpkg --extract "$package" /mnt/unpacked; done
mount --bind /usr/local /mnt/local
mount -t overlay overlay -o lowerdir=/mnt/unpacked/usr:/usr /usr
mount --bind /mnt/local /usr/local
mkdir -p /etc/slurm
cat >/etc/slurm/slurm.conf <<END
ClusterName=tried
SlurmUser=root
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
AuthInfo=socket=/mnt/munge/socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
MpiDefault=none
StateSaveLocation=/mnt/slurm/state
SlurmdSpoolDir=/mnt/slurm/spool
SlurmctldPidFile=/mnt/slurm/slurmctld.pid
SlurmdPidFile=/mnt/slurm/slurmd.pid
KillWait=1
NodeName=node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=node Default=YES
END
printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n' >/etc/slurm/cgroup.conf
daemons=()
end() {
    kill "${daemons[@]}" 2>/dev/null || true
    wait
    find /sys/fs/cgroup/freezer/slurm_node -depth -type d -exec rmdir {} + 2>/dev/null || true
}
trap end EXIT
head -c 1024 /dev/urandom >/mnt/munge/key
chmod 600 /mnt/munge/key
munged --foreground --force --key-file=/mnt/munge/key --socket=/mnt/munge/socket --pid-file=/mnt/munge/pid \
    --log-file=/mnt/munge/log --seed-file=/mnt/munge/seed >/mnt/munge/out 2>&1 &
daemons+=($!)
slurmctld-wlm -D >/mnt/slurm/slurmctld.log 2>&1 &
daemons+=($!)
slurmd-wlm -D -N node -d /usr/sbin/slurmstepd-wlm >/mnt/slurm/slurmd.log 2>&1 &
daemons+=($!)
for _ in $(seq 200); do
    if sinfo --noheader --states=idle 2>/dev/null | grep -q node; then break; fi
    sleep 0.1
done
sinfo --noheader --states=idle | grep -q node || die "Slurm does not start: $(tail -n 5 /mnt/munge/out /mnt/slurm/*.log)"

as_anna() {
    setpriv --reuid anna --regid anna --init-groups env --ignore-environment --chdir "$home" HOME="$home" \
        PATH=/usr/local/bin:/usr/bin:/bin "$@"
}
status=0
as_anna srun with-mdmfs "$home/.config/mdmfs/mount.toml" "$home/grid" sh -c "$job" "$home/grid" || status=$?
[ "$status" = 7 ] || die "srun: $status"
is_gone
[ -z "$(ls "$home/grid")" ] || die "the job's mount is seen outside"
say "srun: the job has a mount of its own, its exit code is its own, nothing is left"

{ echo '#!/bin/bash'; recipe "point=\$(mktemp -d)" | sed 's#~/mdmfs.toml#~/.config/mdmfs/mount.toml#'; echo 'sh -c "$1" "$point"'; } >"$home/job"
status=0
as_anna sbatch --wait --output="$home/out" "$home/job" "$job" || status=$?
[ "$status" = 7 ] || die "sbatch: $status: $(cat "$home/out")"
is_gone
say "sbatch: a job script mounts where users make no namespaces, its exit code is its own, nothing is left"

number=$(as_anna sbatch --parsable --output="$home/out" --wrap="with-mdmfs ~/.config/mdmfs/mount.toml ~/grid sh -c 'ls ~/grid >~/seen; sleep 60'")
for _ in $(seq 200); do
    if [ -s "$home/seen" ]; then break; fi
    sleep 0.1
done
[ -s "$home/seen" ] || die "the job does not begin: $(cat "$home/out")"
as_anna scancel "$number"
is_gone
for _ in $(seq 200); do
    if [ -z "$(squeue --noheader)" ]; then break; fi
    sleep 0.1
done
say "scancel: what a job had mounted goes with it"
