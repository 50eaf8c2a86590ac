package sandbox

// Owner is what a RUN of rung userns-single gave to a symbolic link, fifo or
// socket: files that cannot carry the attribute user.kaniko-build.stat. Dev
// and Ino are those of the file in the upper directory.
type Owner struct {
	Dev, Ino uint64
	UID, GID uint32
}
