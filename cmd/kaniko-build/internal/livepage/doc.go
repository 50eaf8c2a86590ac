// Package livepage shows a watch in browsers of this machine: the graph with the state
// of each image, their logs, and the last builds.
//
//	watch.Event, watch.State, progress.Event, graph ─> Page ─ feed ─┬─> stream ─> browser
//	                                                    └ log rings ┘     (server-sent events)
//
// Words: a feed is the last messages to all browsers; a ring is the last lines of one
// node's log. Both are bounded, and nobody is waited for: a browser has a place in the
// feed, and one that comes late, or cannot follow, gets a snapshot and then what comes
// after it.
//
// A page shows and does nothing else. Only those who know its address are answered, which
// has a token in it, and only by the names of this machine; what a build says is text
// there, never markup.
package livepage
