package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"kaniko-build/schema/diag"
)

// openAzure reads a blob with the account's key.
func openAzure(ctx context.Context, a address, o Options) (io.ReadCloser, error) {
	at := "https://" + a.host + "/" + a.bucket + "/" + a.name
	key := o.Getenv("AZURE_STORAGE_ACCESS_KEY")
	if key == "" {
		return nil, &diag.Problem{What: fmt.Sprintf("read %s: AZURE_STORAGE_ACCESS_KEY is not set", at), Hint: "set it to a key of the storage account"}
	}
	account, _, _ := strings.Cut(a.host, ".")
	cred, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		return nil, &diag.Problem{What: fmt.Sprintf("read %s: AZURE_STORAGE_ACCESS_KEY is not a key: %v", at, err), Hint: "it is in base64"}
	}
	opts := &azblob.ClientOptions{}
	if o.Client != nil {
		opts.Transport = o.Client
	}
	client, err := azblob.NewClientWithSharedKeyCredential("https://"+a.host, cred, opts)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	out, err := client.DownloadStream(ctx, a.bucket, a.name, nil)
	var answer *azcore.ResponseError
	switch {
	case errors.As(err, &answer):
		return nil, refused(at, answer.StatusCode, answer.ErrorCode, "set AZURE_STORAGE_ACCESS_KEY to a key of the storage account")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	return out.NewRetryReader(ctx, nil), nil
}
