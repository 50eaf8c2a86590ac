// Package reproducible builds one input in many ways and compares the images.
//
//	images, folder ─┬─ another folder, day, umask, user, locale, CPU count, -j ─> equal but for times
//	                ├─ the same with --reproducible ───────────────────────────> equal digests
//	                └─ a store that saw other formats, warm ───────────────────> equal to a fresh one
package reproducible
