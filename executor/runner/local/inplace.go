package local

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/sandbox"
)

// startInPlace starts a node in this container's own root. One at a time has it;
// the others wait. The lock is held here and by the node: whoever of us is killed
// first, nobody else begins before the other has gone. What a killed node leaves
// is made good when it is gone.
func startInPlace(ctx context.Context, iso executor.Isolation, at executor.Site, conn *os.File) (executor.Container, error) {
	lock, err := inplace.Lock(ctx, executor.Root, at.Waiting)
	if err != nil {
		return nil, err
	}
	root := inplace.Options{Dir: executor.Root, Hide: executor.RootHide, Keep: at.Keep, Ignore: at.Ignore}
	c, err := func() (executor.Container, error) {
		if err := recoverAll(root); err != nil {
			return nil, err
		}
		// A RUN is root beside us: it shall not read our memory, and whom we trust
		// is read before /etc is the image's.
		if err := sandbox.Untraceable(); err != nil {
			return nil, err
		}
		if _, err := x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("read the system's certificates: %w", err)
		}
		return start(ctx, iso, at, emulators{}, conn, lock)
	}()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &rootContainer{Container: c, end: sync.OnceValue(func() error {
		root.Ends = at.Ends
		return errors.Join(c.Wait(), recoverAll(root), lock.Close())
	})}, nil
}

// recoverAll gives the root back, and the directories that were lent in it.
func recoverAll(root inplace.Options) error {
	return errors.Join(inplace.Recover(root), inplace.RecoverLoans(root.Keep...))
}

// rootContainer gives the root back when the node is gone.
type rootContainer struct {
	executor.Container
	end func() error
}

func (c *rootContainer) Wait() error { return c.end() }

// recoverRoot gives the container its files back if a build was killed, so that
// this one finds what it needs.
func recoverRoot(store string) error {
	keep := []string{store}
	if dir, err := os.Getwd(); err == nil {
		keep = append(keep, dir)
	}
	err := inplace.RecoverIdle(inplace.Options{Dir: executor.Root, Hide: executor.RootHide, Keep: keep})
	if sandbox.Container() != "" { // else mounts may be whatever a machine has, and slow
		err = errors.Join(err, inplace.RecoverLoans())
	}
	return err
}
