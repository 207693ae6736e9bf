#!/bin/sh
# ./parallel.sh [JOBS]: on one machine; with --sshloginfile on several that share a file system. One thread for each job.
jobs=${1:-$(nproc)}
seq "$jobs" | parallel --jobs "$jobs" \
  einfield batch run survey.ecsv --template lens.toml --out survey --threads 1 --quiet --shard "{}/$jobs"
