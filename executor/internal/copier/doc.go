// Package copier does what COPY, ADD and WORKDIR do, as BuildKit does it,
// without a mount.
//
//	source tree --Find--> items --KeyLines--> lines of the step's cache key
//	                        │
//	base (a view) ──────────┼── Place, Unpack, Mkdirs ──> upper
//
// An item is one source of the instruction: a file or a directory of the
// source tree, with the patterns that choose what of it is copied. The base is
// the file system below the step, only read. The upper is a directory that an
// overlay can put over the base: what is placed, and the directories on the
// way to it, which are copied up with what the base says of them. A directory
// that takes the place of something else is marked opaque where the base would
// show through.
//
// A Draft is an upper that is nowhere on disk, for layers that nobody needs unpacked.
//
// Update brings files to a root that a process uses meanwhile, without a base.
//
// Promises: nothing outside upper is written and no link of the source, the
// base or an archive is followed out of its tree. Owners and devices that
// cannot be had here are left to the Maker. The result does not depend on the
// umask. Memory does not grow with the size or number of the files, but a Draft's,
// which has its limit, with the number.
//
// Not promised: that upper is of use after an error, or that files which change
// while they are copied are copied as they were when their key was made:
// compare KeyLines before and after where that matters.
//
// What BuildKit does by accident is kept: a socket becomes an empty file, a
// block device of a source becomes a character device, names in --chown that
// nobody has mean 0.
package copier
