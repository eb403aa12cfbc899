"""Scheduling passes over the loop IR: functions `Kernel -> Kernel`, one file per pass or pair of passes."""
