// Package layer turns a tar stream into a directory that overlayfs can use as
// a lower, and the upper of an overlay back into a tar stream.
//
//	blob --Decompress--> tar --Unpack--> directory (whiteouts in overlay's form)
//	upper + base --Pack--> tar --Compress--> blob
//	tar --Retime--> tar (no time later than the epoch)
//
// An entry is one member of a tar; a whiteout says that a name of the layers
// below is gone; an opaque directory hides everything below it. What the file
// system here cannot express (an owner outside the id map, a device node) is
// put down as a record: an extended attribute on a substitute, or, for links,
// Unpacked.Owners. Recorded reads such records, Pack applies them.
//
// Promises: Unpack touches nothing outside its directory, whatever is in the
// stream, and a stream cannot steer a later overlay mount. What a layer says
// about things that are not in it is reported as Outside, and completed by
// Finish once the layers below are known. Pack writes what BuildKit writes:
// the same tree and base give the same bytes. Compress gives the same bytes
// for any number of CPUs, and with whatever Pieces. Nothing here holds a layer in
// memory.
//
// Not promised: Pack of an upper that changes meanwhile is an error, not a
// snapshot. Extended attributes other than security.capability are kept in
// directories but, as with BuildKit, not exported.
package layer
