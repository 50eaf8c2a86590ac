package store

import "syscall"

// unixStat is what os.FileInfo.Sys gives here.
type unixStat = syscall.Stat_t
