// Package inplace turns one directory into the root of a step and back, where
// no overlay can be mounted: the root of a container itself, or a folder.
//
//	      /                      /.kaniko-build
//	own files ── Open, Bring ──> own/                   phase: leaving
//	layers ── unpack ── rename ─ (from tmp/)            phase: ours
//	RUN ── Changes ──> a layer
//	next stage: rename all ────> gone/ ── deleted
//	own files <── Close ──────── own/                   phase: returning
//
// A spot is a path that is left alone: mount points, the store, what the caller
// names. Spots and the directories above them stay, and directories that somebody
// works in, emptied; everything else in the directory is either the container's own, and then put aside, or ours. Which of
// the two is told by the phase, a file that is replaced by a rename: so whatever
// was killed at whatever moment, Recover puts the container's files back and
// removes the rest.
//
// Where a command would look for files of the image in a mount or a context, that
// is lent to the stack for a while: see loan, and Yield.
//
// A stack is layers from the bottom up. Bring extends the present stack where it
// can, and else begins anew. A layer is unpacked beside the root, several at
// a time, and moved into it by renames: a file is written once.
//
// Promises: what Changes tells is what an overlay's upper would hold, as long as
// the command left the spots alone. Mounts are imitated by directories and files
// in their place, taken away afterwards.
//
// Not promised: a command here is root beside everything that the container
// holds, what is put aside too. A write through one name of a linked file of a
// lower layer shows in its other names. Nothing of a spot is in a layer.
package inplace
