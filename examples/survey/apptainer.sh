#!/bin/bash
# sbatch apptainer.sh: einfield from a container, one process for each task of Slurm. The container sees the variables of
# Slurm and the folder in which the job was submitted.
#SBATCH --job-name=lenses
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=4
#SBATCH --time=02:00:00
#SBATCH --output=lenses-%j.log

image=${EINFIELD_IMAGE:-einfield.sif}
srun apptainer exec --bind "$PWD" --pwd "$PWD" "$image" \
  einfield batch run survey.ecsv --template lens.toml --out survey --time-limit 115m
