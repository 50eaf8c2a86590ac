package sbom

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime/debug"
	"strings"
)

// Go's linker puts what a program was built of behind a magic, from version 1.18 on
// as two strings (debug/buildinfo). It is looked for in the program as it streams by.
const (
	infoMagic = "\xff Go buildinf:"
	infoAlign = 16
	infoHead  = 32      // bytes before the strings: magic, size of pointers, flags
	maxInfo   = 4 << 20 // bytes of the strings; a thousand modules take 100 KB
	maxGo     = 256     // bytes of the version
	infoBlock = 256 << 10
)

// buildInfo is the version of Go and the text of a program's modules.
type buildInfo struct{ version, modules string }

// findBuildInfo reads a program to its end; nil is one without. buf has room for
// infoBlock and maxInfo.
func findBuildInfo(ctx context.Context, r io.Reader, buf []byte) (*buildInfo, error) {
	buf = buf[:0]
	var found *buildInfo
	at := int64(0) // of buf in the program
	eof := false
	for !eof {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf[len(buf):min(cap(buf), len(buf)+infoBlock)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			eof = true
		} else if err != nil {
			return nil, err
		}
		if found != nil {
			buf = buf[:0]
			continue
		}
		var from int
		found, from = scanInfo(buf, at, eof)
		at += int64(from)
		buf = buf[:copy(buf, buf[from:])]
	}
	return found, nil
}

// scanInfo looks for build information in b, which begins at offset at of the program.
// from is where what is not judged yet begins: with more of the program it may be
// information.
func scanInfo(b []byte, at int64, eof bool) (found *buildInfo, from int) {
	for {
		i := bytes.Index(b[from:], []byte(infoMagic))
		if i < 0 {
			return nil, max(from, len(b)-len(infoMagic)+1)
		}
		from += i
		if (at+int64(from))%infoAlign == 0 {
			info, more := decodeInfo(b[from:])
			if info != nil {
				return info, len(b)
			}
			if more && !eof && len(b)-from < maxInfo {
				return nil, from
			}
		}
		from++
	}
}

// decodeInfo decodes what begins with the magic; more says that b ends too early.
func decodeInfo(b []byte) (info *buildInfo, more bool) {
	if len(b) < infoHead {
		return nil, true
	}
	if b[15]&2 == 0 {
		return nil, false // of older versions: pointers
	}
	b = b[infoHead:]
	next := func(limit uint64) (s string, ok bool) {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			more = k == 0
			return "", false
		}
		if n > limit {
			return "", false
		}
		if n > uint64(len(b)-k) {
			more = true
			return "", false
		}
		s, b = string(b[k:k+int(n)]), b[k+int(n):]
		return s, true
	}
	version, ok := next(maxGo)
	if !ok || !strings.HasPrefix(version, "go") && !strings.HasPrefix(version, "devel") {
		return nil, more && !ok
	}
	modules, ok := next(maxInfo)
	if !ok {
		return nil, more
	}
	if len(modules) >= 33 && modules[len(modules)-17] == '\n' { // between markers of 16 bytes
		modules = modules[16 : len(modules)-16]
	} else {
		modules = ""
	}
	return &buildInfo{version, modules}, false
}

// goPackages are the modules of a program, and the standard library.
func goPackages(i *buildInfo, f *File) error {
	version, _, _ := strings.Cut(strings.TrimPrefix(i.version, "go"), " ")
	f.Packages = append(f.Packages, Package{Kind: Golang, Name: "stdlib", Version: version})
	info, err := debug.ParseBuildInfo(i.modules)
	if err != nil {
		return err
	}
	add := func(m *debug.Module) {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path == "" || strings.HasPrefix(m.Path, ".") || strings.HasPrefix(m.Path, "/") {
			return // a directory
		}
		v := m.Version
		if v == "(devel)" {
			v = ""
		}
		f.Packages = append(f.Packages, Package{Kind: Golang, Name: m.Path, Version: v})
	}
	add(&info.Main)
	for _, m := range info.Deps {
		add(m)
	}
	return nil
}
