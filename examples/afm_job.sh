#!/bin/bash
# A job script: qsub afm_job.sh
#$ -N afm
#$ -l qpu=1
#$ -cwd
#$ -j y
qpu run afm_ring.json --shots 200
