"""Loop IR to LLVM IR text to flat code images."""
