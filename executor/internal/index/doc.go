// Package index keeps what one layer says about its names, so that a COPY can
// look at a base that is neither unpacked nor downloaded.
//
//	layer's tar --Scan, Writer--> Index --Encode--> bytes in a store or a registry
//	                                ^                     │
//	                                └───────Decode────────┘
//
// An index has every name that the layer would have if it were unpacked: type,
// owner, mode, size, time, link, device number, extended attributes and which
// names are one file; whiteouts and opaque directories; and the content of
// etc/passwd and etc/group, as owners are looked up in them. Of other files it
// has no content. Names are those of layer.Unpack: links of the layer inside a
// name are followed, a later entry replaces an earlier one. A directory without
// an entry is Implicit: it looks as it does in the layers below.
//
// Several indexes, and directories of unpacked layers, are merged by
// rootfs.View.
//
// Promises: the same tar gives the same bytes. Decode takes any bytes: what it
// accepts is a tree without cycles, within the limits below, in which names are
// names and no attribute steers an overlay; what is damaged or belongs to
// another layer is an error. That an index is true to its layer is not checked
// by anybody: whoever may write it may as well write the layer's unpacked files.
//
// Not promised: an index of every layer. One with too many names, or one that
// unpacking refuses too, has none; it has to be unpacked.
package index
