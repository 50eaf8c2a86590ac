// Package changes asks git what changed in a work tree since a revision.
//
//	--affected, CI variables, the manifest ─ Base ─> origin/main
//	                                            └ Since ─ merge-base ─> files, names of files then and now
//
// Files are absolute paths, of both sides of a move, of what was removed too. What
// git ignores is not among them. A history that is not there (a shallow clone, an
// unknown revision) is ErrHistory: the caller takes everything as changed.
package changes
