// Package images tests the images that stand in for kaniko's: their layout, and
// what pipelines of its users do with them, in Docker's default container.
package images
