// Command helper is a static program that tests run inside a RUN to do what
// no shell does.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	if len(os.Args) < 3 {
		os.Exit(2)
	}
	switch os.Args[1] {
	case "writable": // lists the files below a directory that access(2) calls writable
		n := 0
		for _, root := range os.Args[2:] {
			filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return nil
				}
				n++
				if syscall.Access(path, 2) == nil {
					fmt.Println(path)
				}
				return nil
			})
		}
		fmt.Println(n)
	case "connect-abstract": // exit code 7 if it is refused
		c, err := net.Dial("unix", os.Args[2])
		if errors.Is(err, fs.ErrPermission) {
			os.Exit(7)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		c.Close()
	default:
		os.Exit(2)
	}
}
