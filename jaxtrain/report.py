def write_run(workdir, moment): pass
