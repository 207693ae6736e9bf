#!/bin/bash
# sbatch slurm_array.sh: 20 elements of 4 processors. An element that runs out of time is put into the queue again and
# continues with the same command; status 75 says that there is more to do.
#SBATCH --job-name=lenses
#SBATCH --array=1-20
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=1G
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output=lenses-%A_%a.log
#SBATCH --open-mode=append

einfield batch run survey.ecsv --template lens.toml --out survey --time-limit 55m &
trap 'kill -TERM %1' TERM
wait %1; status=$?
# A signal ends the first wait, not the run.
if [ $status -gt 128 ]; then wait %1; status=$?; fi
if [ $status -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi
exit $status
