#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# up.sh DIR [NODES] - starts a SLURM cluster of virtual nodes n1 ... nN on this machine, as root. down.sh DIR ends it.
#
# Every node and the controller has its own network namespace (joined by a bridge inside the controller's), host name,
# /tmp and /dev/shm, so that Open MPI and PMIx take them for separate machines. Names carry the cluster's id and nothing
# lives in the machine's own network, so clusters do not get in each other's way. Commands reach it by DIR/enter.
set -euo pipefail
dir=$(realpath -m "$1")
nodes=${2:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
id=km$$
mkdir -p "$dir"/{state,log}
: >"$dir/pids"
: >"$dir/namespaces"

add_namespace() {
  ip netns add "$1"
  echo "$1" >>"$dir/namespaces"
  ip -n "$1" link set lo up
}

# ---- Network: the controller is 10.77.0.254 and holds the bridge -------------------------------------------------------
add_namespace "${id}ctl"
ip -n "${id}ctl" link add br0 type bridge
ip -n "${id}ctl" addr add 10.77.0.254/24 dev br0
ip -n "${id}ctl" link set br0 up
{
  echo '127.0.0.1 localhost'
  echo '10.77.0.254 ctl'
} >"$dir/hosts"
for i in $(seq 1 "$nodes"); do
  add_namespace "${id}n$i"
  ip -n "${id}ctl" link add "leg$i" type veth peer name eth0 netns "${id}n$i"
  ip -n "${id}ctl" link set "leg$i" master br0 up
  ip -n "${id}n$i" addr add "10.77.0.$i/24" dev eth0
  ip -n "${id}n$i" link set eth0 up
  echo "10.77.0.$i n$i" >>"$dir/hosts"
done

# ---- A munge daemon of its own ---------------------------------------------------------------------------------------
mkdir -m 0755 "$dir/munge"
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
  --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed" >"$dir/log/munged.out" 2>&1 &
echo $! >>"$dir/pids"

cat >"$dir/slurm.conf" <<C
ClusterName=virtual
SlurmctldHost=ctl(10.77.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$(for i in $(seq 1 "$nodes"); do echo "NodeName=n$i NodeAddr=10.77.0.$i NodeHostname=n$i CPUs=2 State=UNKNOWN"; done)
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=${GRACE_S:-30}
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
C

# ---- Daemons: each in its namespaces -----------------------------------------------------------------------------------
# nsenter, not `ip netns exec`: that would remount /sys, and slurmd needs the cgroups there.
cat >"$dir/inside" <<'I'
#!/bin/bash
# inside NODE COMMAND... - in the node's network already: host name, hosts file, private /tmp and /dev/shm.
set -eu
node=$1; shift
hostname "$node"
mount --bind "$KM_DIR/hosts" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
case $KM_ROOT/ in
  /tmp/*)  # the private /tmp would hide the clone: take it along
    mount --rbind "$KM_ROOT" /mnt
    mount -t tmpfs tmpfs /tmp
    mkdir -p "$KM_ROOT"
    mount --rbind /mnt "$KM_ROOT" ;;
  *) mount -t tmpfs tmpfs /tmp ;;
esac
exec "$@"
I
chmod +x "$dir/inside"
export KM_DIR=$dir KM_ROOT=$root SLURM_CONF=$dir/slurm.conf
start() {  # <namespace> <host> <command...>
  local namespace=$1 host=$2
  shift 2
  nsenter --net="/run/netns/$namespace" unshare --uts --mount --ipc "$dir/inside" "$host" "$@" >>"$dir/log/$host.out" 2>&1 &
  echo $! >>"$dir/pids"
}
for _ in $(seq 50); do [[ -S $dir/munge/socket ]] && break; sleep 0.1; done
start "${id}ctl" ctl slurmctld -D -f "$dir/slurm.conf"
for i in $(seq 1 "$nodes"); do
  mkdir -p "$dir/spool-n$i"
  start "${id}n$i" "n$i" slurmd -D -f "$dir/slurm.conf" -N "n$i"
done

cat >"$dir/enter" <<C
#!/bin/bash
# enter COMMAND... - runs a command where the cluster is reachable (sbatch, squeue, scontrol, srun)
export SLURM_CONF=$dir/slurm.conf
exec nsenter --net=/run/netns/${id}ctl -- "\$@"
C
chmod +x "$dir/enter"

for _ in $(seq 100); do
  [[ $("$dir/enter" sinfo -h -N -t idle 2>/dev/null | awk '{print $1}' | sort -u | wc -l) -eq $nodes ]] && exit 0
  sleep 0.2
done
echo "up.sh: the nodes did not become idle:" >&2
"$dir/enter" sinfo -N -l >&2 || true
tail -n 20 "$dir"/log/*.out >&2
exit 1
