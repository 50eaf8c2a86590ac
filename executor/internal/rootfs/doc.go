// Package rootfs keeps unpacked layers on disk and stacks them into the root
// of a container.
//
//	blobs --Ensure--> one directory a layer --Mount--> overlay (RUN)
//	                          |                          ^
//	                          +--View--> tree.Tree       Stubs: what to mount on
//	index.Index of a layer ---+
//
// A layer directory is complete or absent, shared by every image and process
// that has the layer, and never written to again. A chain is an image's layers
// from the bottom up; everything else here lists directories topmost first. A
// view is what an overlay of the directories would show, without a mount; a
// stub is a file or directory that exists to be mounted on.
//
// Layers.View needs nothing unpacked: a layer without a directory is shown from
// its index, which answers all but the content of files. What it cannot answer
// is ErrUnpack, upon which the caller begins again with the directories of
// Ensure; so nothing that is built depends on there being an index. OpenLowers
// is the same for indexes and directories that the caller has.
//
// A layer that refers to nothing outside it is kept as its diffID and serves
// every chain. One that does is completed upon its chain, and kept as that.
//
// Promises: a kill at any moment leaves temporary directories that Sweep
// removes, nothing half done under a layer's name. Views and stubs follow
// links inside the root only. Not promised: a view of directories that change
// under it, but for the upper of OpenViewOver.
package rootfs
