import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';
import { devGateway } from './dev/gateway.js';

export default defineConfig({
  plugins: [react(), devGateway()],
  build: {
    outDir: 'dist',
    assetsDir: 'assets',
    // Fonts and icons stay files, so that `default-src 'self'` without data: suffices.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { host: '127.0.0.1' },
  preview: { host: '127.0.0.1' },
});
