// Package cache keeps the results of steps outside the machine, where other
// machines find them.
//
// An entry is an image of one layer: what a step made, with the lines that its
// key is the hash of. A place holds entries by key, laid out as kaniko does: a
// repository, where the key is the tag, or a path of the file system, where an
// entry is the OCI layout directory PATH:KEY.
//
//	Find(key) ──> tag key of each place ──> manifest, config ──checks──> Hit: the layer is known,
//	                                                                    and its blob stays there
//	Put(entry) ─> blob (mounted if the registry has it), config, manifest with the tag key
//
// What a place says is believed only as far as it can be checked: the lines hash
// to the key under our scheme, the layer is named alike in config and labels, the
// blob is there with its size, nothing is too large or too old. Everything else is
// a *Miss with a reason, never an error. That a blob holds the layer it is said to
// hold shows when it is read; whoever reads it compares. So who may write to a
// place can put a layer there under a key that it does not belong to: that
// boundary is the registry's to keep.
//
// Results that were made with a single id are kept apart, as KEY-single, and
// never answer whoever has a full range.
//
// A place that cannot be reached, or not be read, is not asked again in this
// run. Entries are never removed: kaniko's users have rules for that at their
// registry.
package cache
