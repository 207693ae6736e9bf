#!/usr/bin/env bash
# A survey of tiny lenses under real engines: GNU parallel, Open MPI, Slurm. Each of them is skipped when it is not
# installed (tools/install_dependencies.sh --engines). Every table must be that of one undisturbed process.
#   tests/engines.sh PATH/TO/einfield
set -euo pipefail

einfield=$(readlink -f "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/einfield-engines-XXXXXX")
daemons=()
finish() {
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
cd "$work"
fail() {
  echo "engines: $*" >&2
  for log in *.log; do [ -s "$log" ] && { echo "--- $log"; tail -n 20 "$log"; } >&2; done
  exit 1
}

cat >lens.toml <<'END'
[observation]
image = "0.fits[IMAGE]"
noise = "0.fits[NOISE]"
psf = { fwhm = 0.1, size = 5 }
pixel_scale = 0.05
[[lens]]
profile = "SIE"
theta_E = 0.5
e1 = 0.1
fit = ["theta_E", "e1"]
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 1.0
R_sersic = 0.15
n_sersic = 1.2
center_x = 0.07
fit = ["amp", "center_x", "center_y"]
[optimizer]
name = "levenberg_marquardt"
loss = "chi2"
starts = 40
[simulate]
nx = 40
ny = 40
background_rms = 0.02
exposure_time = 2000.0
END
{
  printf '# %%ECSV 1.0\n# ---\n# datatype:\n# - {name: id, datatype: string}\n# - {name: image, datatype: string}\n'
  printf '# - {name: noise, datatype: string}\nid image noise\n'
  for i in $(seq 0 11); do
    "$einfield" simulate lens.toml --set simulate.seed=$((i + 1)) --out "$i.fits" >/dev/null
    echo "lens$i $i.fits[IMAGE] $i.fits[NOISE]"
  done
} >survey.ecsv

# The table of a survey without the column of times.
table() {
  "$einfield" batch collect "$1" --out "$1.ecsv" --overwrite >/dev/null
  awk -F, '/^#/ { next } !column { for (i = 1; i <= NF; ++i) if ($i == "seconds") column = i } { $column = ""; print }' "$1.ecsv"
}
run=("$einfield" batch run survey.ecsv --template lens.toml --backend cpu)
"${run[@]}" --out alone >alone.log
table alone >alone.table
[ "$(wc -l <alone.table)" -eq 13 ] || fail "the table has no 12 lenses"
same() {
  table "$1" | cmp -s - alone.table || fail "$1: another table"
  echo "engines: $1: the same table"
}
ran=0

if command -v parallel >/dev/null; then
  seq 3 | parallel --jobs 3 "${run[@]}" --out parallel --threads 1 --shard '{}/3' >parallel.log 2>&1 || fail "parallel"
  same parallel
  ran=1
fi

if command -v mpirun >/dev/null; then
  mpi=(mpirun --oversubscribe -n 4)
  [ "$(id -u)" -ne 0 ] || mpi+=(--allow-run-as-root)
  "${mpi[@]}" "${run[@]}" --out mpi --threads 1 >mpi.log 2>&1 || fail "mpirun"
  for rank in 0 1 2 3; do
    grep -q "share $rank of 4 (OMPI_COMM_WORLD_RANK)" mpi.log || fail "mpirun: no rank $rank"
  done
  same mpi
  ran=1
fi

# Slurm with one node of this machine and no system service.
start_slurm() {
  local host cpus
  host=$(hostname -s)
  cpus=$(nproc)
  mkdir -p slurm/state slurm/spool
  dd if=/dev/urandom of=slurm/munge.key bs=1024 count=1 2>/dev/null
  chmod 600 slurm/munge.key
  chmod 755 "$work" slurm
  cat >slurm/slurm.conf <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$work/slurm/munge.socket
CredType=cred/munge
SlurmctldPort=27817
SlurmdPort=27818
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/spool
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
JobRequeue=1
RequeueExit=75
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
END
  export SLURM_CONF=$work/slurm/slurm.conf
  munged --foreground --force --key-file="$work/slurm/munge.key" --socket="$work/slurm/munge.socket" \
    --pid-file="$work/slurm/munged.pid" --log-file="$work/slurm/munged.log" --seed-file="$work/slurm/munged.seed" \
    >munged.log 2>&1 &
  daemons+=($!)
  for _ in $(seq 50); do [ -S slurm/munge.socket ] && break; sleep 0.1; done
  slurmctld -D >slurmctld.log 2>&1 &
  daemons+=($!)
  slurmd -D >slurmd.log 2>&1 &
  daemons+=($!)
  for _ in $(seq 100); do
    sinfo -h -o %T 2>/dev/null | grep -qE 'idle|mixed|alloc' && return
    sleep 0.2
  done
  fail "Slurm does not start"
}
# Waits until no job is left.
drain() {
  for _ in $(seq 600); do
    [ -z "$(squeue -h 2>/dev/null)" ] && return
    sleep 0.2
  done
  squeue >&2
  fail "jobs of Slurm do not end"
}

if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then
  start_slurm
  printf '#!/bin/bash\nexec %q batch run survey.ecsv --template lens.toml --backend cpu --threads 1 --out array\n' \
    "$einfield" >array.sh
  sbatch --quiet --array=1-3 --output="$work/array-%a.log" array.sh
  drain
  for index in 0 1 2; do
    grep -q "share $index of 3 (SLURM_ARRAY_TASK_ID)" array-*.log || fail "array: no share $index"
  done
  same array
  # Tasks of one job.
  printf '#!/bin/bash\nsrun --overlap %q batch run survey.ecsv --template lens.toml --backend cpu --threads 1 --out tasks\n' \
    "$einfield" >tasks.sh
  sbatch --quiet --ntasks=2 --overcommit --output="$work/tasks.log" tasks.sh
  drain
  grep -q "share 1 of 2 (SLURM_PROCID)" tasks.log || fail "srun: no second task"
  same tasks
  # A job that runs out of time again and again ends with status 75 and is put into the queue by Slurm itself.
  printf '#!/bin/bash\nexec %q batch run survey.ecsv --template lens.toml --backend cpu --threads 1 --out again --time-limit 0.5s\n' \
    "$einfield" >again.sh
  sbatch --quiet --requeue --open-mode=append --output="$work/again.log" again.sh
  for _ in $(seq 20); do
    # Slurm waits for two minutes before a job that it has put back begins again.
    for job in $(squeue -h -t PENDING -o %A 2>/dev/null); do
      scontrol update jobid="$job" starttime=now >/dev/null 2>&1 || true
      scontrol release "$job" >/dev/null 2>&1 || true
    done
    [ -z "$(squeue -h)" ] && break
    sleep 1
  done
  echo "engines: Slurm put a job back $(grep -c 'the same command continues' again.log || true) times"
  scancel --full --quiet --user="$(id -un)" 2>/dev/null || true
  drain
  "${run[@]}" --out again >>again.log
  same again
  ran=1
fi

if [ $ran -eq 0 ]; then
  echo "engines: none is installed; tools/install_dependencies.sh --engines installs them"
  exit 77
fi
