#!/bin/bash
# A job script for a Python that has the kit and Pulser (on the lab: qpu-python): qsub afm_order.sh
#$ -N afm_order
#$ -l qpu=1
#$ -cwd
#$ -j y
exec "${PYTHON:-qpu-python}" afm_order.py --plot afm.svg "$@"
