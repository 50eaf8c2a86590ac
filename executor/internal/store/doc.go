// Package store keeps what builds make and fetch as plain files, so that many
// processes share it without a daemon.
//
// A blob is bytes named by their sha256: a compressed layer, a config, a
// manifest. A key is the hash of a step's inputs; its entry says which layer the
// step made. A variant is one encoding of a layer (format, level, times) as a
// blob. An index says which names a layer has. An image is a name for a
// manifest. A session is one process's use of the store; what it has not
// finished lies in its temporary directory.
//
//	Writer --Commit--> blobs/sha256/<digest> <─── Variant (diffID, params)
//	                         ^                        ^
//	PutImage: images/<name> ─┘      PutKey: keys/ab/<key> (diffID)
//
//	tmp/<session>/  --rename-->  any of these
//	locks/<name>    one holder at a time, over all processes
//
// A thing is whole or absent: it is written in tmp, hashed on the way, and
// renamed. Nothing is flushed to disk one by one: a flush costs more than most
// steps, and what it protects from (a crash of the machine, not of a process) is
// found by reading. A blob is hashed again by whoever reads it to the end, and
// its size is compared before that; records are decoded strictly. What turns out
// to be damaged is removed and is a miss with a reason (Miss), so that it is
// made again. Options.Sync flushes at Close for those who need a cache to survive
// a power cut.
//
// The directory is its owner's alone (0700). Root hands the sub-directories that
// nodes write to the id that is root inside them (Options.NodeOwner) and lets
// the top be entered by that group (0750): group and id come from a range that
// nobody uses. Inside, a node reaches the same files by Attach through a bind
// mount. No path is resolved through a link that leads out of the directory.
//
// Locks need flock(2) between all users of a store; on a network file system
// Warnings says that this is not sure.
package store
