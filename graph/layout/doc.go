// Package layout places a graph on a plane: what is needed stands to the left of
// what needs it.
//
//	nodes, edges ─ blocks ─ ranks ─ order ─ coordinates ─> Picture
//
// Words: a rank is a column; a lane is a horizontal band, one for each group; a block
// is several nodes of one lane that need and are needed by exactly the same
// ones, placed as a table, with one line for all of their edges. A track is
// where a line passes through the columns between its ends.
//
// It is the method of Sugiyama: rank by the longest way, order by barycentres,
// then coordinates near the mean of the neighbours. Nothing overlaps by
// construction: boxes of a column are apart, columns are, and lines cross a column
// only on a track of their own. The same input gives the same picture; names,
// colours and how it is drawn are the caller's.
package layout
