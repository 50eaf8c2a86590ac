package buildctx

import (
	"context"
	"strings"

	"kaniko-build/executor/internal/tree"
)

// projectedData is the link that Kubernetes turns when it changes the files of a
// volume, all at once.
const projectedData = "..data"

// isProjected tells whether a directory is a volume that Kubernetes made of a
// ConfigMap or a Secret, or projects from several sources: its files lie in a
// folder that "..data" leads to, and are shown by links through it.
//
//	..data -> ..2026_11_25     Dockerfile -> ..data/Dockerfile
//
// Such a context is the folder behind "..data": its files, as files.
func isProjected(ctx context.Context, d *tree.Dir) bool {
	data, err := d.Lstat(ctx, projectedData)
	if err != nil || !data.IsLink() || !strings.HasPrefix(data.Link, "..") || strings.Contains(data.Link, "/") {
		return false
	}
	list, err := d.ReadDir(ctx, "")
	if err != nil {
		return false
	}
	for _, e := range list {
		if !strings.HasPrefix(e.Name, "..") && (!e.IsLink() || e.Link != projectedData+"/"+e.Name) {
			return false // somebody put something beside them
		}
	}
	return true
}
