#!/bin/bash
# sbatch slurm_srun.sh: one job of 64 tasks, which share the lenses. srun passes signals on to all of them.
#SBATCH --job-name=lenses
#SBATCH --ntasks=64
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=1G
#SBATCH --time=04:00:00
#SBATCH --output=lenses-%j.log

srun einfield batch run survey.ecsv --template lens.toml --out survey --time-limit 235m
status=$?
# Another job takes over what is left.
if [ $status -eq 75 ]; then sbatch "$0"; fi
if [ $status -le 1 ]; then einfield batch collect survey --out lenses.fits --overwrite; fi
exit $status
