package registry

import (
	"errors"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"kaniko-build/executor/internal/retry"
)

// passing tells whether an error may be gone the next time.
func passing(err error) bool {
	var status *transport.Error
	switch {
	case errors.Is(err, errPlain):
		return false
	case errors.As(err, &status):
		return retry.PassingStatus(status.StatusCode)
	}
	return retry.Passing(err)
}

// cut tells whether a transfer broke off that can be begun again. Requests that
// failed as a whole have been repeated by the transport already.
func cut(err error) bool {
	var status *transport.Error
	return passing(err) && !errors.As(err, &status) && !retry.Refused(err)
}
