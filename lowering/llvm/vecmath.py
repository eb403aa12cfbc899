def expand(op, args, has_fma): raise NotImplementedError
