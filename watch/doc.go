// Package watch decides which nodes to build when files change, and when.
//
// Words: a site is one reading of the manifest; a look is what nodes of it are made
// of at one moment; the sum of a node stands for all of that; a wave is the nodes
// that one change asks for, built together.
//
//	Workshop.Open ─> Site ─Look─> sums, reads ─┬─> notify.Watcher ─> settle ─> paths
//	      ▲                                    │                                │
//	      └── a file of the manifest ──────────┼──── who reads them? Look ◄─────┘
//	                                           └─> another sum? a wave: that node and its dependents
//
// The matcher of a build's own reads says which nodes a path concerns, and the sum
// whether anything changed: a touch, or a save without a change, is the same sum. So
// nothing is built that a build would find in the store, and what is built is what
// lay there when the wave began. A node whose files change while it is built is ended
// and begun again, alone with its dependents (Restart), or when the wave is done
// (Queue). How to build is not the business of this package.
package watch
