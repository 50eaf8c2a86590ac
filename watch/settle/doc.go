// Package settle waits until changes have come to rest.
//
//	sets of paths ──> quiet for a while, or long enough ──> one Batch
//
// Changes that come while nobody takes a batch go into that batch. What it holds is
// bounded by notify.Set.
package settle
