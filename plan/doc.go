// Package plan says what will be done: which targets are built for which
// platforms, in what order, and why one needs another.
//
// Words: a node is one target for one platform. An edge says that a node needs
// another one, its parent, and carries the line that says so. A reference is an
// image that a Dockerfile names.
//
//	Manifest, selection --+
//	Dockerfiles ----------+--Make--> Plan --Table, JSON--> for people and programs
//	Facts ----------------+            |
//	                                   +--Graph--> order, walk
//
// Edges come from three places. A named context "target:x" and a reference that is
// equal to another target's image hand the parent over: Node.Parents tells under
// which name. An entry of needs is order only. A named context beats an image of
// its name, as it does when building; an image named by digest is never a parent.
// A weak edge counts only if its parent is in the plan anyway; else the parent's
// published image stands for it, Node.Published. An internal parent is planned for
// each platform that somebody needs it for.
//
// Make asks for references through the interface Dockerfiles and reads nothing
// itself. The same input gives the same Plan, byte for byte in JSON. It reports all
// mistakes it finds at once, as diag.Problems. Whether images, files and platforms
// exist is for others to find out.
package plan
