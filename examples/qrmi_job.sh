#!/bin/bash
# A job script for the qrmi_*.py beside it: qsub qrmi_job.sh qrmi_pulser.py
#$ -N qrmi
#$ -l qpu=1
#$ -cwd
#$ -j y
# Your Python with qrmi[ibm,pasqal]; on a lab that was set up with --qrmi it has this name.
exec qrmi-python "$@"
