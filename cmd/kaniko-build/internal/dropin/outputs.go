package dropin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kaniko-build/executor"
)

// reference is an image's name as kaniko writes it in files: in full, the hub
// as index.docker.io.
func reference(ref string) (repo, tag string, err error) {
	n, err := executor.ParseImageName(ref)
	if err != nil {
		return "", "", err
	}
	host := n.Host
	if host == "docker.io" {
		host = "index.docker.io"
	}
	return host + "/" + n.Repo, n.Tag, nil
}

// writeDigests writes what the flags ask for about an image. The files with
// names come even when nothing was pushed.
func (p *pushFlags) writeDigests(ctx context.Context, web *http.Client, digest string) error {
	var names, tagged bytes.Buffer
	for _, d := range p.destinations {
		repo, tag, err := reference(d)
		if err != nil {
			return err
		}
		fmt.Fprintf(&names, "%s@%s\n", repo, digest)
		fmt.Fprintf(&tagged, "%s:%s@%s\n", repo, tag, digest)
	}
	for _, f := range []struct {
		to   string
		text []byte
	}{{p.digestFile, []byte(digest)}, {p.nameDigest, names.Bytes()}, {p.nameTagSum, tagged.Bytes()}} {
		if f.to == "" {
			continue
		}
		if err := writeTo(ctx, web, f.to, f.text); err != nil {
			return fmt.Errorf("write digest to %s: %w", redacted(f.to), err)
		}
	}
	return nil
}

// writeImages writes what Google's Cloud Build reads: the images that were
// pushed, below $BUILDER_OUTPUT.
func (p *pushFlags) writeImages(digest string) error {
	dir := os.Getenv("BUILDER_OUTPUT")
	if dir == "" {
		return nil
	}
	var b bytes.Buffer
	for _, d := range p.destinations {
		repo, tag, err := reference(d)
		if err != nil {
			return err
		}
		line, err := json.Marshal(struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{repo + ":" + tag, digest})
		if err != nil {
			return fmt.Errorf("encode the list of images: %w", err)
		}
		b.Write(append(line, '\n'))
	}
	if err := writeFile(filepath.Join(dir, "images"), b.Bytes()); err != nil {
		return fmt.Errorf("write the list of images: %w", err)
	}
	return nil
}

// writeTo writes a file, or puts it to a web address that was made for that.
func writeTo(ctx context.Context, web *http.Client, to string, text []byte) error {
	if strings.HasPrefix(to, "https://") {
		return put(ctx, web, to, text)
	}
	return writeFile(to, text)
}

// writeFile writes in place: the file may be a device, or one that Kubernetes
// has mounted.
func writeFile(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

func put(ctx context.Context, web *http.Client, to string, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	if web == nil {
		web = http.DefaultClient
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}

// redacted is an address without its query, where signed ones have their secret.
func redacted(to string) string {
	bare, _, _ := strings.Cut(to, "?")
	return bare
}
