// Package image reads container images from several stores and describes them
// in a canonical form that two builders, or two builds, can be compared by.
//
//	OCI layout (directory, tar) ─┐
//	docker-save tar             ─┼─Open─> Opened ─Describe─> Dump ─Diff(golden)─> differences in words
//	registry reference          ─┘
//
// A Dump is what a reader of the image sees: its configuration, the flattened
// root file system, and per layer the paths it holds. Problems lists what makes
// a layer malformed: a path twice, an entry without its parents, a whiteout below
// something that is no directory, a hard link across layers, a wrong diff ID.
// The package shares no code with the builder that it judges.
package image
