"""Native code that is not a kernel: functions in a typed subset of Python, translated to LLVM."""
