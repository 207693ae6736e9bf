#!/bin/bash
# hq submit hyperqueue.sh: 50 tasks of 4 processors each. HyperQueue gives a task the processors that it asked for, and with
# --pin binds it to them. A worker that ends with its allocation kills its tasks; they begin again on another one.
#HQ --name lenses
#HQ --array 0-49
#HQ --cpus 4
#HQ --pin taskset

einfield batch run survey.ecsv --template lens.toml --out survey --shard "$HQ_TASK_ID/50"
