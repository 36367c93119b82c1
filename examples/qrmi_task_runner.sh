#!/bin/bash
# QRMI's task_runner runs a task from a file: qsub qrmi_task_runner.sh
#$ -N task_runner
#$ -l qpu=1
#$ -cwd
#$ -j y
echo "{\"sequence\": $(cat afm_ring.json), \"job_runs\": 200}" >afm_task.json
qrmi-python qrmi_task_runner.py "$QRMI_JOB_QPU_RESOURCES" afm_task.json afm_counts.json && cat afm_counts.json
