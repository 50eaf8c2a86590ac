// Package sbom finds the packages in an image, and writes them down as SPDX.
//
//	a layer's tar --Scan--> Layer ──┐
//	                Layer ──────────┼─Merge─> Contents --Document--> SPDX 2.3 JSON
//	                Layer ──────────┘
//
// Package: something with a name and a version that a package manager put there, or
// that is built into a program. Evidence: the file that tells of packages: the
// database of dpkg, apk or rpm, a program of Go, the metadata of a package of npm or
// Python. Release: the os-release of the image.
//
// A layer is read once, as a stream, and nothing of it is unpacked. What is found in
// it depends on the layer alone, so that it can be kept by its diffID; Merge leaves out
// what layers above hide, by their names, whiteouts and opaque directories.
//
// Promises: layers may hold anything. A file that cannot be read, or that is larger
// than such files are, is a note and not an error; sizes and numbers have limits. The same
// layers give the same bytes.
//
// Not promised: that everything is found. Who makes an image can
// hide packages in it. A link of one layer in the middle of a name of another is not
// followed. A program of Go older than 1.18, or without its build
// information, tells of nothing.
package sbom
