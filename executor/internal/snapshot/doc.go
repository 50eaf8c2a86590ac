// Package snapshot finds what a command changed in a directory by looking at
// every file's metadata before and after: for roots that no overlay watches.
//
//	Take ── parallel stat walk ──> Snapshot ─┐
//	            (the command runs)           ├─ Diff ──> changes, in the order of a walk
//	Take ──────────────────────> Snapshot ───┘
//
// One Take is one lstat of each file and one read of each directory; no
// content is read. Device, inode, ctime, mtime, size, mode and owner tell most
// files apart. Where they cannot (a file whose ctime moved and nothing else,
// or one written in the same tick of the clock as the snapshot) Diff asks its
// caller to compare.
//
// Nothing may change the directory while Take runs. Not promised: that a file
// changed behind the clock's back (its ctime set back with the system's clock)
// is noticed.
package snapshot
