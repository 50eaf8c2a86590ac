// Package graph orders nodes that need each other, and walks them in parallel.
//
// Words: a node needs another when it can run only after it; then it is the
// other's dependent. Plan order is the order in which nodes were handed to New.
//
//	nodes, edges --New--> Graph --Order, Levels, CriticalPath--> what will happen
//	                        |
//	 cost, weight ----------+--Walk--> run(ctx, id) for each --> Outcome
//	                        +--DOT, Mermaid, JSON--> pictures
//
// A Graph has no cycle and never changes, so that many goroutines may use one.
// All answers depend on nothing but what New was given; only the times at which
// Walk starts nodes depend on how long they run. The package knows nothing of
// images: an ID is a name, a reason is a text to show.
package graph
