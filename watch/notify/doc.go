// Package notify tells which paths change below directories that somebody is
// interested in.
//
// Words: an interest is what is to be watched; a set is paths that changed, each
// once; to rescan is to give up what is known of directories and look again.
//
//	Interest ─> Watcher ─┬─ inotify, one watch a directory ─┬─> Set, Set, ...
//	                     └─ poll: stat of every file ───────┘
//
// A path that changed after Watch returned is told, or covered by a set that says
// that anything may have changed. Whether the content of a file is another is not
// its business: a path that is told may be as it was. Directories that the interest
// does not enter are neither watched nor read. When the kernel gives no more
// watches, and for directories of file systems that other machines write to, files
// are compared every now and then instead.
package notify
